"""What a run will take: memory, time and money, before it is begun."""
