"""The coalition's partners: their files, the protocols their systems speak, and a simulator of such a system."""
