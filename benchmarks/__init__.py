"""All the peers side by side: ``python -m benchmarks``; see README.md beside this file.

Reading order: peer_table (who), loads (what), build, server, measure (how one figure comes about),
rounds (in which order), results (medians and ratios), goals, report, plot.
"""
