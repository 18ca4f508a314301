"""Which cell do measurements show: its range, write noise, drift and endurance?"""
