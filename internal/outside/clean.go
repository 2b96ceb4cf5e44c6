package outside

import "reflect"

// Clean returns v with Name applied to every string in it: fields, elements, keys of maps. What v points to isn't changed;
// the result shares with it what needs no change. Bytes and what is not exported stay as they are. V must not hold itself.
func Clean[T any](v T) T {
	if r := reflect.ValueOf(&v).Elem(); dirty(r) {
		clean(r)
	}
	return v
}

// dirty is true if clean changes something.
func dirty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		s := v.String()
		return Name(s) != s
	case reflect.Pointer, reflect.Interface:
		return !v.IsNil() && dirty(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if shown(v.Type().Field(i)) && dirty(v.Field(i)) {
				return true
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return false
		}
		for i := range v.Len() {
			if dirty(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if dirty(it.Key()) || dirty(it.Value()) {
				return true
			}
		}
	}
	return false
}

// clean changes v, and puts copies in the place of what it refers to.
func clean(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(Name(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			n := reflect.New(v.Type().Elem())
			n.Elem().Set(v.Elem())
			clean(n.Elem())
			v.Set(n)
		}
	case reflect.Interface:
		if !v.IsNil() {
			v.Set(cleaned(v.Elem()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if shown(v.Type().Field(i)) {
				clean(v.Field(i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			clean(v.Index(i))
		}
	case reflect.Slice:
		if v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		n := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(n, v)
		for i := range n.Len() {
			clean(n.Index(i))
		}
		v.Set(n)
	case reflect.Map:
		if v.IsNil() {
			return
		}
		n := reflect.MakeMapWithSize(v.Type(), v.Len())
		for it := v.MapRange(); it.Next(); {
			n.SetMapIndex(cleaned(it.Key()), cleaned(it.Value()))
		}
		v.Set(n)
	}
}

// cleaned is a clean copy of what can't be changed in its place.
func cleaned(v reflect.Value) reflect.Value {
	n := reflect.New(v.Type()).Elem()
	n.Set(v)
	clean(n)
	return n
}

// shown is true for fields that encoders look at.
func shown(f reflect.StructField) bool {
	return f.IsExported() || f.Anonymous && f.Type.Kind() == reflect.Struct
}
