"""Which names are this daemon's: hosted, held by a lease, given up, taken over; and who else is there."""
