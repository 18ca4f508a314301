"""What do all layers and threads of a converted model share: settings, the record of calls, and memory tensors?"""
