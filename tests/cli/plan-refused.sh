. "$LIB"
refused 1 "tegu plan: *99*" tegu plan "$TEACHER" --keep 99 -o p.json
refused 1 "tegu plan: *keep*" tegu plan "$TEACHER" --keep 5-2 -o p.json
refused 1 "tegu plan: *keep*" tegu plan "$TEACHER" --keep sometimes -o p.json
refused 1 "tegu plan: *" tegu plan "$TEACHER" --keep every:0 -o p.json
refused 2 "tegu plan: option --window: 99999999999 is out of range*" tegu plan "$TEACHER" --window 99999999999
refused 2 "tegu plan: option --feature-map: 'cos' is not one of *" tegu plan "$TEACHER" --feature-map cos
: >p.json
refused 1 "tegu plan: p.json: exists*" tegu plan "$TEACHER" --keep none -o p.json
refused 1 "tegu plan: p.json: *" tegu plan "$TEACHER" --keep auto:2 --rank p.json
