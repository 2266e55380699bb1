# Settings that make no task or no model
. "$LIB"
refused 1 '*mqar: 17 pairs must be in \[1, 16\]*' tegu mqar --pairs 17
refused 1 '*a vocabulary of 16 has no 8 keys*' tegu mqar --vocab 16
refused 2 '*--fewest 9 is more than --pairs 8*' tegu mqar --fewest 9
refused 2 '*--width 65 must be an even multiple of --heads 2*' tegu mqar --width 65
refused 2 "*--mixer*unknown option 'partition': did you mean 'partitions'*" tegu mqar --mixer sse:partition=2
refused 1 "*mixer 'gla' has no partitions*" tegu mqar --mixer gla:partitions=2
refused 1 "*active partitions of mixer sse: 3, must be 1 to 2*" tegu mqar --mixer sse:partitions=2:active=3
refused 2 "*mixer: 'soft' is not one of softmax, *" tegu mqar --mixer soft
refused 2 "*option chunk: none of the mixers has it*" tegu mqar --mixer softmax,linear --chunk 4
refused 1 '*window 0 is not in*' tegu mqar --mixer window --window 0
refused 2 "*option --before*: 'soft' is not one of softmax, *" tegu mqar --before soft
refused 2 "*--before*unknown option 'taps'*" tegu mqar --before hyena_y:taps=2
