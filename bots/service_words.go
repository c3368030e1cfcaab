package bots

import (
	"maps"
	"slices"

	"dreamcad/queue"
)

func (s *Service) refreshWords() {
	if err := s.words.Refresh(s.now()); err != nil {
		s.log.Warn("the block list could not be read again; the old one holds", "err", err)
	}
}

// decent looks the texts up in the block list. What its adult classes refuse
// is taken in the places that are meant for it, and its pictures are covered.
func (s *Service) decent(c Command, r *queue.Request) error {
	for _, text := range []string{r.Prompt, r.Negative} {
		adult, err := s.allowed(c, text)
		if err != nil {
			return err
		}
		if adult {
			extra := map[string]string{adultMark: "1"}
			maps.Copy(extra, r.Origin.Extra)
			r.Origin.Extra = extra
		}
	}
	return nil
}

// allowed looks one text up; adult says that it is taken only because of the place.
func (s *Service) allowed(c Command, text string) (adult bool, err error) {
	class, adult, hit := s.words.Match(text)
	switch {
	case !hit:
		return false, nil
	case !adult:
		return false, refusal(c.lang().Say("error.words", class))
	case !s.adultPlace(c):
		return false, refusal(c.lang().Say("error.adult", class))
	}
	return true, nil
}

// adultMark in Origin.Extra: pictures of the job are covered.
const adultMark = "adult"

func (s *Service) adultPlace(c Command) bool {
	places := s.config.AdultPlaces
	return slices.Contains(places, c.Origin.Platform+":"+c.Origin.Channel) || c.Adult && slices.Contains(places, AgeRestricted)
}
