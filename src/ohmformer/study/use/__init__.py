"""What do hours of use do to the hardware of a study's points?"""
