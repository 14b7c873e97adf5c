"""Sans-I/O: bytes to values and back. Imports only the standard library.

Messages: framing, codecs, exchange. Packets, from the outside in: checksum, fields and numbers;
ethernet, cooked, arp; header_options with ipv4, ipv6; udp, tcp; control with icmp, icmpv6,
neighbour_discovery, igmp and mld; dissection goes through all of them. Captures: captured, pcap,
pcapng, capture_files; bpf, and filters, which are compiled to it.
"""
