"""What systemd does elsewhere: starts, watches and stops the processes of `tradebal run` and `tradebal demo`."""
