/* SPDX-License-Identifier: Apache-2.0 */
/* The names of classes. */
#include "model/labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/doc.h"

enum { MAX_LABEL = 256 };

/* Name `index` of the head, or NULL if config.json gives none; fails the reader on one that is no
 * name. */
static const char *find_label(
                struct doc_reader *r, const struct facts *facts, int head, int index) {
	const struct doc *list, *value;
	char key[24];
	if (facts->family == FAMILY_FATHOM_ENCODER) {
		list = doc_get(doc_at(doc_get(r->object, "classification_heads"), (size_t)head),
		                "labels");
		value = doc_at(list, (size_t)index);
	} else {
		list = doc_get(r->object, "id2label");
		snprintf(key, sizeof key, "%d", index);
		value = doc_get(list, key);
		if (doc_kind(list) == DOC_OBJECT && !value)
			doc_fail(r, "\"id2label\" has no label \"%s\"", key);
	}
	size_t len;
	const char *label = doc_as_string(value, &len);
	if (value && (!label || len == 0 || len > MAX_LABEL))
		doc_fail(r, "label %d must be a string of 1 to %d bytes", index, MAX_LABEL);
	return label;
}

static char **read_head(struct doc_reader *r, const struct facts *facts, int head) {
	const int classes = facts->classifiers[head].classes;
	char **labels = calloc((size_t)classes, sizeof *labels);
	for (int i = 0; labels && i < classes && !r->failed; i++) {
		char fallback[24];
		snprintf(fallback, sizeof fallback, "LABEL_%d", i);
		const char *label = find_label(r, facts, head, i);
		labels[i] = strdup(label ? label : fallback);
		if (!labels[i])
			doc_fail(r, "out of memory");
	}
	if (!labels)
		doc_fail(r, "out of memory");
	return labels;
}

bool labels_parse(const char *json, size_t len, const struct facts *facts, char ****ret_labels,
                char *err, size_t errlen) {
	if (facts->n_classifiers == 0) {
		*ret_labels = NULL;
		return true;
	}
	struct doc *doc = doc_parse(json, len, "config.json", err, errlen);
	if (!doc)
		return false;
	struct doc_reader r = {
		.object = doc, .file = "config.json", .err = err, .errlen = errlen
	};
	char ***labels = calloc((size_t)facts->n_classifiers, sizeof *labels);
	if (!labels)
		doc_fail(&r, "out of memory");
	for (int h = 0; labels && h < facts->n_classifiers && !r.failed; h++)
		labels[h] = read_head(&r, facts, h);
	doc_free(doc);
	if (r.failed) {
		labels_free(labels, facts);
		return false;
	}
	*ret_labels = labels;
	return true;
}

void labels_free(char ***labels, const struct facts *facts) {
	for (int h = 0; labels && h < facts->n_classifiers; h++) {
		for (int i = 0; labels[h] && i < facts->classifiers[h].classes; i++)
			free(labels[h][i]);
		free(labels[h]);
	}
	free(labels);
}
