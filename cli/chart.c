/* SPDX-License-Identifier: Apache-2.0 */
/* The picture: two panels that share the axis of quality. Colours follow the viewer's scheme. */
#include "cli/chart.h"

#include <math.h>
#include <stdbool.h>

enum {
	WIDTH = 880,
	HEIGHT = 360,
	LEFT = 64,
	TOP = 48,
	PANEL = 360,
	GAP = 48,
	TALL = 250,
	MOST_MARKS = 12
};

struct range {
	double low, high;
};

static struct range widen(struct range r) {
	double room = (r.high - r.low) * 0.06;
	/* Values that differ in their last digits only are the same for a picture. */
	if (!(room > fabs(r.high) * 1e-9))
		room = fabs(r.high) * 0.1 + 1e-9;
	return (struct range){ r.low - room, r.high + room };
}

static double place(struct range r, double value, double length) {
	return (value - r.low) / (r.high - r.low) * length;
}

/* A round step that gives about five marks. */
static double step_of(struct range r) {
	double raw = (r.high - r.low) / 5, power = pow(10, floor(log10(raw)));
	double part = raw / power;
	return (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10) * power;
}

static void write_text(FILE *out, double x, double y, const char *anchor, const char *class,
                const char *text) {
	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor,
	                class);
	for (; *text; text++) {
		if (*text == '<')
			fputs("&lt;", out);
		else if (*text == '&')
			fputs("&amp;", out);
		else
			fputc(*text, out);
	}
	fputs("</text>\n", out);
}

static void write_marks(FILE *out, struct range r, double x, bool across) {
	double step = step_of(r), first = ceil(r.low / step) * step;
	char text[40];
	for (int i = 0; i < MOST_MARKS && first + i * step <= r.high; i++) {
		double v = first + i * step;
		double at = place(r, v, across ? PANEL : TALL);
		snprintf(text, sizeof text, "%.6g", fabs(v) < step * 1e-6 ? 0 : v);
		if (across) {
			write_text(out, x + at, TOP + TALL + 18, "middle", "mark", text);
		} else {
			double y = TOP + TALL - at;
			fprintf(out, "<path class=\"grid\" d=\"M%.1f %.1fh%d\"/>\n", x, y, PANEL);
			write_text(out, x - 6, y + 4, "end", "mark", text);
		}
	}
}

static void write_panel(FILE *out, const struct chart *c, double x, struct range across,
                struct range up, bool by_ms) {
	write_marks(out, up, x, false);
	if (by_ms)
		write_marks(out, across, x, true);
	fprintf(out, "<path class=\"axis\" d=\"M%.1f %dv%dh%d\"/>\n<path class=\"line\" d=\"", x,
	                TOP, TALL, PANEL);
	for (int i = 0; i < c->n; i++)
		fprintf(out, "%s%.1f %.1f", i ? "L" : "M",
		                x
		                                + place(across,
		                                                by_ms ? c->points[i].ms
		                                                      : c->points[i].share,
		                                                PANEL),
		                TOP + TALL - place(up, c->points[i].quality, TALL));
	fputs("\"/>\n", out);
	for (int i = 0; i < c->n; i++) {
		const struct chart_point *p = &c->points[i];
		double px = x + place(across, by_ms ? p->ms : p->share, PANEL);
		double py = TOP + TALL - place(up, p->quality, TALL);
		fprintf(out,
		                "<circle class=\"point\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>"
		                "depth %s: %s %.6g, %.4g ms per %s</title></circle>\n",
		                px, py, p->name, c->metric, p->quality, p->ms, c->item);
		if (by_ms)
			write_text(out, px, py - 9, "middle", "name", p->name);
		else
			write_text(out, px, TOP + TALL + 18, "middle", "mark", p->name);
	}
}

void chart_write(FILE *out, const struct chart *c) {
	struct range share = { 1e300, -1e300 }, ms = share, quality = share;
	char label[160];
	for (int i = 0; i < c->n; i++) {
		const struct chart_point *p = &c->points[i];
		share = (struct range){ fmin(share.low, p->share), fmax(share.high, p->share) };
		ms = (struct range){ fmin(ms.low, p->ms), fmax(ms.high, p->ms) };
		quality = (struct range){ fmin(quality.low, p->quality),
			fmax(quality.high, p->quality) };
	}
	share = widen(share);
	ms = widen((struct range){ fmin(ms.low, 0), ms.high });
	ms.low = 0;
	quality = widen(quality);
	fprintf(out,
	                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
	                "font-family=\"system-ui,sans-serif\" font-size=\"12\">\n"
	                "<style>.mark{fill:#667}.name,.title{fill:#223}.title{font-size:15px}"
	                ".grid{stroke:#dde}.axis{stroke:#889;fill:none}"
	                ".line{stroke:#2563ab;stroke-width:2;fill:none}.point{fill:#2563ab}"
	                "@media(prefers-color-scheme:dark){svg{background:#14171c}"
	                ".mark{fill:#9ab}.name,.title{fill:#dde}.grid{stroke:#2a3038}"
	                ".line{stroke:#6db3f2}.point{fill:#6db3f2}}</style>\n",
	                WIDTH, HEIGHT);
	write_text(out, LEFT, 24, "start", "title", c->title);
	write_panel(out, c, LEFT, share, quality, false);
	write_panel(out, c, LEFT + PANEL + GAP, ms, quality, true);
	snprintf(label, sizeof label, "%s against depth", c->metric);
	write_text(out, LEFT + PANEL / 2.0, HEIGHT - 18, "middle", "mark", label);
	snprintf(label, sizeof label, "%s against milliseconds per %s", c->metric, c->item);
	write_text(out, LEFT + PANEL + GAP + PANEL / 2.0, HEIGHT - 18, "middle", "mark", label);
	fputs("</svg>\n", out);
}
