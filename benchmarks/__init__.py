"""Speed against the alternatives; see README.md beside this file. Imports lwnb, never the other way round."""
