"""What is done to values before they are written, so that noise does less harm?"""
