"""The claim loop and the straight line of a run; asyncio and ports only."""
