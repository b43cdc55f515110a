"""The house in the middle: trades come in through the upstream door, pass the router, and leave by the FIFOs."""
