"""How good must cells be, so that the metric of a study falls by no more than a given loss?"""
