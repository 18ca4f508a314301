"""What happens to a real PyTorch model on that hardware?"""
