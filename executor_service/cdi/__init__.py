"""Devices that vendors describe in files of the node (Container Device Interface)."""
