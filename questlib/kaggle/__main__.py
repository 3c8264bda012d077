"""The command line: wheels, bundle, rehearse, push, status, output."""
