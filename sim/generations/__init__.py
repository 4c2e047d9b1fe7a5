"""Five ways to protect the same mail on the same relay, from the global PIN key to this protocol.

What differs is where the keys are: in every handset, in the relay's database, in a server that makes them, on the
device for good, or on the device for one message. The historical ones live here, under suites that keys/ and client/
refuse.
"""
