package main

import "encoding/json"

// fooled are the last version with each hole and the first without it, of each line that a fix was brought back to,
// and some between.
const fooled = "5.0.0 5.1.0 5.2.0 5.16.1 5.17.0 5.23.1 5.24.0 5.24.2 5.24.3 5.27.0 5.27.1 5.29.2 5.29.3 5.30.0 5.30.1 5.36.2 5.38.0 5.39.3 5.39.4 5.40.0 5.41.0 5.42.0 5.42.1"

// advisories is the record of what fools which version.
type advisories struct {
	Inputs []input  `json:"inputs"`
	Seen   []record `json:"seen"`
}

// recordAdvisories keeps the inputs of the record, so that all versions are given the same.
func recordAdvisories(file string, versions []string) error {
	var a advisories
	err := readJSON(file, &a)
	if err == nil && a.Inputs == nil {
		a.Inputs, err = newInputs()
	}
	if err != nil {
		return err
	}
	inputs, err := json.Marshal(a.Inputs)
	if err != nil {
		return err
	}
	if a.Seen, err = ask("fool", versions, inputs, a.Seen); err != nil {
		return err
	}
	return writeJSON(file, a)
}
