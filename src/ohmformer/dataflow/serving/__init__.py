"""What does a served request take: first token, further tokens, energy and wear, on one machine of fixed size?"""
