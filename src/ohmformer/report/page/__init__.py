"""What does a reader find on the page of a study, from the question to the command that repeats it?

`content` holds what a page is made of; `study_page` makes it from results; `html`, `markdown` and `print_figure` write
it.
"""
