package outside

import "reflect"

// Clean returns v with Name applied to all its strings: fields, elements, keys of maps. It does not change what v
// points to; the result shares unchanged parts. Bytes and unexported fields stay. V must not contain itself.
func Clean[T any](v T) T { return Without(Secrets{}, v) }

// Without is Clean that also removes the secrets s.
func Without[T any](s Secrets, v T) T {
	if r := reflect.ValueOf(&v).Elem(); s.dirty(r) {
		s.clean(r)
	}
	return v
}

func (s Secrets) dirty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		text := v.String()
		return s.Name(text) != text
	case reflect.Pointer, reflect.Interface:
		return !v.IsNil() && s.dirty(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if shown(v.Type().Field(i)) && s.dirty(v.Field(i)) {
				return true
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return false
		}
		for i := range v.Len() {
			if s.dirty(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if s.dirty(it.Key()) || s.dirty(it.Value()) {
				return true
			}
		}
	}
	return false
}

// clean changes v in place, and replaces what v refers to by copies.
func (s Secrets) clean(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s.Name(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			n := reflect.New(v.Type().Elem())
			n.Elem().Set(v.Elem())
			s.clean(n.Elem())
			v.Set(n)
		}
	case reflect.Interface:
		if !v.IsNil() {
			v.Set(s.cleaned(v.Elem()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if shown(v.Type().Field(i)) {
				s.clean(v.Field(i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			s.clean(v.Index(i))
		}
	case reflect.Slice:
		if v.IsNil() || v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		n := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(n, v)
		for i := range n.Len() {
			s.clean(n.Index(i))
		}
		v.Set(n)
	case reflect.Map:
		if v.IsNil() {
			return
		}
		n := reflect.MakeMapWithSize(v.Type(), v.Len())
		for it := v.MapRange(); it.Next(); {
			n.SetMapIndex(s.cleaned(it.Key()), s.cleaned(it.Value()))
		}
		v.Set(n)
	}
}

func (s Secrets) cleaned(v reflect.Value) reflect.Value {
	n := reflect.New(v.Type()).Elem()
	n.Set(v)
	s.clean(n)
	return n
}

// shown reports whether encoders write the field.
func shown(f reflect.StructField) bool {
	return f.IsExported() || f.Anonymous && f.Type.Kind() == reflect.Struct
}
