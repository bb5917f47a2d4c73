"""Models as a coordinator keeps them: seen, taken home, and held against what the bus says of them."""
