. "$LIB"
tegu plan "$TEACHER" --keep 4,6 --window 128
echo
tegu plan "$TEACHER" --mixer window --keep every:4 --window 64
