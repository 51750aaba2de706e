"""What shows the worker to those who operate it: status, metrics, notices to the service manager.

Everything here only looks: it is told what happens (`ports.Watcher`), and no run waits for it or depends on it.
"""
