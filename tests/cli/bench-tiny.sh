. "$LIB"
model llama m
tegu bench m --prefill 64 --decode 32 --train 32 --keep none --window 8 --json -q >j || complain "bench"
for key in processor blas_core threads sgemm_gflops tokens_per_second sgemm_share state_bytes peak_bytes; do
    grep -q "\"$key\"" j || complain "no $key: $(cat j)"
done
for what in prefill decode "kl step"; do grep -q "\"what\": \"$what\"" j || complain "no $what"; done
tegu bench m --decode 16,48 -q | grep -cE '^decode'
