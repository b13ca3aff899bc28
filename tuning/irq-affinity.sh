#!/bin/sh
# Has each queue of a network card interrupt one processor, and sends by the queue of the processor that sends (XPS), so that a
# connection's interrupt, its TCP work and the core that serves it share a processor and its caches. With fewer queues than
# processors, --rps has the kernel hand packets on to all of them by software. Undo by --undo.
set -eu
# shellcheck source=tuning/lib.sh
. "$(dirname "$0")/lib.sh"

usage() {
  cat <<'TEXT'
irq-affinity.sh [--interface NAME]... [--cpus LIST] [--rps] [--apply]
irq-affinity.sh --undo

Prints what it would do; --apply does it, --undo puts back what was there.
  --interface NAME  a network card; all that are up, if none is named
  --cpus LIST       the processors of roomcast's cores, as in 0-3,8; all that are online, if it is left out
  --rps             with fewer queues than processors: spread packets by software
TEXT
}

interfaces=
cpus=
rps=no
again=
while [ $# -gt 0 ]; do
  case $1 in
    --interface | --cpus)
      [ $# -ge 2 ] || die "$1 wants a value; see --help"
      if [ "$1" = --cpus ]; then cpus=$2; else interfaces="$interfaces $2"; fi
      again="$again$1 $2 "
      shift
      ;;
    --rps) rps=yes && again="$again--rps " ;;
    *) common_option "$1" || die "there is no option $1; see --help" ;;
  esac
  shift
done

# INTERFACE: the numbers of its interrupts, with a space on both sides of each.
interrupts_of() {
  for folder in "$root/sys/class/net/$1/device/msi_irqs" "$root/sys/class/net/$1/device/../msi_irqs"; do
    [ -d "$folder" ] || continue
    printf ' '
    for file in "$folder"/*; do printf '%s ' "${file##*/}"; done
    return
  done
}

# INTERFACE: a line for each interrupt of a queue: queue, rx or tx, interrupt, what the driver calls it. Most drivers have
# one for both directions; `roomcast doctor` knows the same names.
queues_of() {
  awk -v interface="$1" -v interrupts="$(interrupts_of "$1")" '
    {
      number = $1
      if (!sub(/:$/, "", number) || number !~ /^[0-9]+$/) next
      if (interrupts != "" ? !index(interrupts, " " number " ") : !index($NF, interface)) next
      name = tolower($NF)
      if (match(name, /(tx-?rx|rx-?tx|rx|input|comp|fp|queue|_q)[-._]?[0-9]+/)) way = "rx"
      else if (match(name, /(tx|output)[-._]?[0-9]+/)) way = "tx"
      else next
      queue = substr(name, RSTART, RLENGTH)
      sub(/^.*[^0-9]/, "", queue)
      print queue, way, number, $NF
    }' "$root/proc/interrupts" | sort -n
}

# NUMBER CPU...: the processor of queue NUMBER, going round.
cpu_of() {
  queue=$1
  shift
  shift $((queue % $#))
  printf '%s' "$1"
}

plan_interface() {
  interface=$1
  folder=/sys/class/net/$interface
  [ -d "$root$folder" ] || die "there is no interface $interface; see ip -brief link"
  table=$(queues_of "$interface")
  count=$(printf '%s\n' "$table" | awk '$2 == "rx" { n++ } END { print n + 0 }')
  # shellcheck disable=SC2086 # A list of words.
  set -- $cpu_words
  say "$interface: $count queue(s) for $# processor(s), $cpus"
  if [ "$count" = 0 ]; then
    say "  its interrupts are not told apart by queue in /proc/interrupts: nothing to place"
    return
  fi
  while read -r queue _ interrupt name; do
    plan_value "/proc/irq/$interrupt/smp_affinity_list" "$(cpu_of "$queue" "$@")" "$name"
  done <<LINES
$table
LINES
  # One queue is everybody's.
  if [ -d "$root$folder/queues/tx-1" ]; then
    for path in "$root$folder"/queues/tx-*; do
      queue=${path##*-}
      plan_value "$folder/queues/tx-$queue/xps_cpus" "$(mask_of "$(cpu_of "$queue" "$@")")"
    done
  fi
  if [ "$rps" = yes ] && [ "$count" -lt $# ]; then
    for path in "$root$folder"/queues/rx-*; do
      plan_value "$folder/queues/${path##*/}/rps_cpus" "$(mask_of "$@")"
    done
  elif [ "$count" -lt $# ]; then
    say "  Fewer queues than processors. If the card has more (ethtool -l $interface):"
    say "    ethtool -L $interface combined $#     # cuts the link for a moment; undo: combined $count"
    say "  If not, --rps spreads packets by software."
  fi
}

if [ "$undo" = yes ]; then
  undo_all
  finish ''
fi
[ -r "$root/proc/interrupts" ] || die "cannot read $root/proc/interrupts"
cpus=${cpus:-$(online_cpus)}
cpu_words=$(expand "$cpus")
if [ -z "$interfaces" ]; then
  for path in "$root"/sys/class/net/*; do
    [ -e "$path/device" ] || continue
    name=${path##*/}
    [ "$(value_of "/sys/class/net/$name/operstate" || true)" = down ] || interfaces="$interfaces $name"
  done
  [ -n "$interfaces" ] || say "There is no network card that is up."
fi
for interface in $interfaces; do
  plan_interface "$interface"
done
if grep -qxs irqbalance "$root"/proc/[0-9]*/comm; then
  say "irqbalance runs and would move interrupts again:"
  say "  systemctl disable --now irqbalance     # undo: systemctl enable --now irqbalance"
fi
finish "$again"
