/* SPDX-License-Identifier: Apache-2.0 */
/* Finite numbers as the shortest decimal text that reads back exactly. */
#ifndef FATHOM_PROTO_NUMBER_H
#define FATHOM_PROTO_NUMBER_H

enum { NUMBER_BYTES = 64 };

/* The text in JSON's notation, whatever the locale; `value` must be finite. */
void number_from_f32(char text[NUMBER_BYTES], float value);
void number_from_f64(char text[NUMBER_BYTES], double value);
/* What a client that reads numbers as f64 gets from the text of `value`. */
double number_read_back(float value);

#endif
