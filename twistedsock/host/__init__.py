"""From configuration to running listeners: everything that joins the wings.

Reading order: registry (find plug-ins), settings (what can be configured), loader (TOML and
flags to settings), plan (settings checked and resolved), ports (what serves which address),
server (bind, serve, drain, stop), probe, logs, daemon (signals and exit codes).
"""
