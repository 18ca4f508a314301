"""What a real model computes, as a Workload."""
