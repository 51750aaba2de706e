"""Logs of runs, shown while they are written to whoever has their address.

A port of this host that strangers can reach does not belong into a process that holds credentials. So a child serves
it: another user, without rights, that is handed a log at a time as a descriptor to read from, and knows of each address
only its digest. Whatever happens to it, no run waits for it.
"""
