"""What a shard's stream is, as balancer and worker both must know it: framing, gap records, marks, pipes, batches."""
