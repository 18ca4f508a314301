"""Which candidates for K and V were compared within a budget, and what does each bring and cost?"""
