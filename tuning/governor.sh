#!/bin/sh
# Keeps processors at their highest frequency. A core of roomcast sleeps between events; with powersave, ondemand or schedutil
# its processor slows down in the meantime, and the next event is late by the time that it takes to speed up. Costs power, and
# on some machines the turbo of the busiest processors. Undo by --undo.
set -eu
# shellcheck source=tuning/lib.sh
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<'TEXT'
governor.sh [--cpus LIST] [--governor NAME] [--apply]
governor.sh --undo

Prints what it would do; --apply does it, --undo puts back what was there.
  --cpus LIST       the processors of roomcast's cores, as in 0-3,8; all that are online, if it is left out
  --governor NAME   performance, if it is left out
TEXT
}

cpus=
governor=performance
again=
while [ $# -gt 0 ]; do
  case $1 in
    --cpus | --governor)
      [ $# -ge 2 ] || die "$1 wants a value; see --help"
      if [ "$1" = --cpus ]; then cpus=$2; else governor=$2; fi
      again="$again$1 $2 "
      shift
      ;;
    *) common_option "$1" || die "there is no option $1; see --help" ;;
  esac
  shift
done

if [ "$undo" = yes ]; then
  undo_all
  finish ''
fi
cpus=${cpus:-$(online_cpus)}
cpu_words=$(expand "$cpus")
say "Processors $cpus: governor $governor"
found=no
for cpu in $cpu_words; do
  folder=/sys/devices/system/cpu/cpu$cpu/cpufreq
  [ -r "$root$folder/scaling_governor" ] || continue
  found=yes
  if known=$(value_of "$folder/scaling_available_governors"); then
    case " $known " in
      *" $governor "*) ;;
      *) die "processor $cpu knows no governor $governor, but: $known" ;;
    esac
  fi
  plan_value "$folder/scaling_governor" "$governor"
done
[ "$found" = yes ] || say "  They have no frequency to set here: a virtual machine, or its firmware keeps it."
finish "$again"
