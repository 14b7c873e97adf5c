"""Pure decisions: who may come in, how much, and for how long.

The clock is passed in as a number of seconds; nothing here reads it, logs or opens anything.
"""
