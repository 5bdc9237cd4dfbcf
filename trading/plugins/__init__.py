"""What a user's own files add: rule-based traders, baselines, fee schedules.

A file that `plugins` of the settings names, or a module that an installed package tells of by an
entry point of the group `trading.plugins`, registers what it has when it is imported.
"""
