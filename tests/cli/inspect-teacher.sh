. "$LIB"
cd "$ROOT" && tegu inspect examples/teacher-8m
