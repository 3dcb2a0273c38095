package dns

// Fit is fit, for the fuzzing of whole answers.
var Fit = fit
