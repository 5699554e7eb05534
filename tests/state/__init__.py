"""State files of older versions, which must load; and of newer ones, which must not be touched."""
