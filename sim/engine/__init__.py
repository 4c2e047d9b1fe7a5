"""The simulation engine: virtual time, people, networks and disks that fail, around the real relay.

run.py         one scenario, one seed, one run
sized.py       thousands of devices in one queue of events, link and end-to-end cryptography of the right size only
real.py        the real client and the relay's real service, under sim/virtual_time.py
"""
