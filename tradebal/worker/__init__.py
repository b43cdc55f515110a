"""The process that reads one shard's FIFO and hands whole records to a handler."""
