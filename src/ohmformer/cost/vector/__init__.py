"""Which vector lanes do digital work, and who shares them?"""
