# What cannot be is refused before any work, and leaves nothing.
. "$LIB"
tiny t
sweep() { tegu sweep t --data text --length 64 "$@"; }
refused 2 "*option '--mixers LIST' is required*" sweep --tokens 4k
refused 2 "*the budget is --tokens N or else --stage*" sweep --mixers window
refused 2 "*the budget is --tokens N or else --stage*" sweep --mixers window --tokens 4k --stage kl:tokens=4k
refused 2 "*--tokens: 3 is fewer than 4*" sweep --mixers window --tokens 3
refused 2 "*--mixers*'magic'*not one of*window*" sweep --mixers magic --tokens 4k
refused 2 "*--mixers*windw*" sweep --mixers window:windw=3 --tokens 4k
refused 2 "*--mixers*'keep' is no mixer*" sweep --mixers keep --tokens 4k
refused 2 "*asked for twice*" sweep --mixers window,window --tokens 4k
refused 2 "*copies*" sweep --mixers window --recall copies:3 --tokens 4k
refused 1 "*window, --keep ratio:9: keep: ratio:9 keeps none*" sweep --mixers window --keep none ratio:9 --tokens 4k
refused 1 "*window:conv=4, --keep none: plan: layer 0: mixer 'window' has no conv*" sweep --mixers window:conv=4 --keep none --tokens 4k
refused 1 "*no.txt*" tegu sweep t --data no.txt --mixers window --keep none --tokens 4k
: >empty
refused 1 "*" tegu sweep t --data empty --mixers window --keep none --tokens 4k
