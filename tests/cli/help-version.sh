tegu --version | head -n 1
