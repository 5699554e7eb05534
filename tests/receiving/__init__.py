"""How mail reaches an agent, and that one agent's trouble reaches nobody else."""
