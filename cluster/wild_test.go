// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"math"
	"reflect"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// words are values of the string types that something switches on, and some that nothing knows.
var words = map[reflect.Type][]string{
	reflect.TypeFor[Phase]():      {string(PhaseBlank), string(PhaseElecting), string(PhasePromoting), string(PhasePromoted)},
	reflect.TypeFor[Mode]():       {string(ModeQuorum), string(ModeAsync)},
	reflect.TypeFor[ChangeKind](): {string(AddLearner), string(AddVoter), string(Remove)},
	reflect.TypeFor[Cause](): {
		string(CauseLeaseLapsed), string(CausePgDown), string(CauseEvidence), string(CauseOperator), string(CauseSwitchover),
		string(CauseNoProgress), string(CauseTimeout),
	},
	reflect.TypeFor[Wait]():     {string(WaitLease), string(WaitEvidence), string(WaitOwnFence), string(WaitNone)},
	reflect.TypeFor[DiskKind](): {string(DiskUnknown), string(DiskEmpty), string(DiskPresent), string(DiskInterrupted)},
	reflect.TypeFor[Role]():     {string(RoleDown), string(RoleFenced), string(RoleFollowing), string(RolePromoting), string(RoleServing)},
	reflect.TypeFor[NodeName](): {"a", "b", "c", "d", "e"},
}

// wild fills v, field by field, with values near the edges: what nobody foresaw, but in the range where things meet.
// Fields that are added later are filled without a change here. States are left alone: they come from commands.
func wild(t *rapid.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(wildInt(t, v.Type()))
	case reflect.Uint64, reflect.Uint32, reflect.Uint8:
		n := rapid.SampledFrom([]uint64{0, 1, 1, 2, 2, 3, 3, 4, 5, 50, 0x1000, 0x2000, math.MaxUint64}).Draw(t, "uint")
		if v.Type() == reflect.TypeFor[Timeline]() {
			n &= 0xFFFF // behind the last number there is no election, and that is refused
		}
		v.SetUint(n & (math.MaxUint64 >> (64 - v.Type().Bits())))
	case reflect.String:
		if w := words[v.Type()]; w != nil && rapid.IntRange(0, 9).Draw(t, "known") > 0 {
			v.SetString(rapid.SampledFrom(w).Draw(t, "word"))
		} else {
			v.SetString(rapid.SampledFrom([]string{"", "x", "streaming"}).Draw(t, "text"))
		}
	case reflect.Pointer:
		if v.Type() != reflect.TypeFor[*State]() && rapid.IntRange(0, 2).Draw(t, "nil") > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			wild(t, v.Elem())
		}
	case reflect.Slice:
		s := reflect.MakeSlice(v.Type(), rapid.IntRange(0, 4).Draw(t, "len"), 4)
		for i := range s.Len() {
			wild(t, s.Index(i))
		}
		v.Set(s)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				wild(t, v.Field(i))
			}
		}
	default:
		t.Fatalf("no wild values for %s", v.Type())
	}
}

func wildInt(t *rapid.T, typ reflect.Type) int64 {
	if typ == reflect.TypeFor[time.Duration]() {
		return int64(rapid.SampledFrom([]time.Duration{-1, 0, 1, time.Millisecond, BetterWait, time.Second, 3 * time.Second, time.Hour, math.MaxInt64}).Draw(t, "age"))
	}
	n := rapid.SampledFrom([]int64{math.MinInt64, -1, 0, 0, 1, 1, 2, 3, 500, 2000, 20000, math.MaxInt64}).Draw(t, "int")
	return n << (64 - typ.Bits()) >> (64 - typ.Bits())
}

func draw[T any](t *rapid.T) T {
	var x T
	wild(t, reflect.ValueOf(&x).Elem())
	return x
}

// drawWild is a command with one field set, and everything in it arbitrary. Half of them at least name the current
// epoch and its primary, so that the guards behind are reached.
func drawWild(t *rapid.T, s *State) Command {
	var c Command
	v := reflect.ValueOf(&c).Elem()
	f := v.Field(rapid.IntRange(0, v.NumField()-1).Draw(t, "field"))
	f.Set(reflect.New(f.Type().Elem()))
	wild(t, f.Elem())
	if rapid.Bool().Draw(t, "current") {
		for name, value := range map[string]any{"Epoch": s.Epoch().Epoch, "From": s.Primary(), "Election": s.Election.Index} {
			if x := f.Elem().FieldByName(name); x.IsValid() && x.Type() == reflect.TypeOf(value) {
				x.Set(reflect.ValueOf(value))
			}
		}
		if c.Elect != nil {
			c.Elect.Epoch = s.Election.Epoch
		}
	}
	return c
}

// lead is a leader's view of a state, wild but for what the machine guarantees: peers and reports sorted, one of each.
func lead(t *rapid.T, s *State) *LeaderView {
	v := draw[LeaderView](t)
	v.State = s
	slices.SortFunc(v.Peers, func(a, b PeerView) int { return compareInc(a.Inc, b.Inc) })
	v.Peers = slices.CompactFunc(v.Peers, func(a, b PeerView) bool { return a.Inc == b.Inc })
	for i := range v.Reports {
		if rapid.IntRange(0, 3).Draw(t, "proper") > 0 {
			r := drawReport(t, s, v.Reports[i].Inc)
			r.Evidence, r.GrantAgeMS, r.GrantLeaseMS = v.Reports[i].Evidence, v.Reports[i].GrantAgeMS, v.Reports[i].GrantLeaseMS
			v.Reports[i].Report = r
		}
	}
	slices.SortFunc(v.Reports, func(a, b TimedReport) int { return compareInc(a.Inc, b.Inc) })
	v.Reports = slices.CompactFunc(v.Reports, func(a, b TimedReport) bool { return a.Inc == b.Inc })
	return &v
}

func compareInc(a, b Incarnation) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
