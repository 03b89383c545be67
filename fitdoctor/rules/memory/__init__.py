"""Memory that grows or runs out, and a device that waits."""
