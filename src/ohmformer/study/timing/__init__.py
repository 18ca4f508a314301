"""When are the keys and values of the accuracy half written and read, by the cost half of the same study?"""
