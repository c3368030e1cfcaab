package models

import "strings"

// hints are the things that come nearest to nouns that people often ask for.
// Those that a model does not know are passed over, and what its own
// description relates counts first.
var hints = parseHints(`
animal: teddy bear, dog, cat, penguin
dog, puppy, wolf, fox: dog, teddy bear
cat, kitten, tiger, lion, leopard: cat, teddy bear
rabbit, bunny, hare, mouse, hamster, squirrel: rabbit, teddy bear
horse, cow, pig, sheep, goat, deer, elephant, giraffe, unicorn, pony: dog, teddy bear
bear, panda, koala, monkey, gorilla: teddy bear
bird, owl, eagle, parrot, chicken, chick, swan, goose: penguin, rubber duck
duck: rubber duck
dragon, dinosaur, crocodile, lizard, snake, frog: turtle, fish, penguin
tortoise: turtle
shark, whale, dolphin, octopus, crab, lobster: fish, turtle
insect, bee, butterfly, spider, ant: turtle, fish
person, man, woman, human, boy, girl, child, baby, king, queen, soldier, warrior, wizard, witch, pirate: snowman, robot
astronaut, spaceman: robot, rocket
knight, samurai, ninja: robot, sword
zombie, skeleton, ghost, monster, alien, creature, demon, golem: robot, snowman
statue, bust, sculpture, figurine, trophy: chess pawn, goblet, teddy bear
toy, doll, plush: teddy bear, rubber duck, ball
vehicle, van, jeep, suv, taxi, tractor, ambulance, tank, cart: car, truck, bus
truck, lorry, pickup: truck, car
motorcycle, motorbike, bicycle, bike, scooter: car, truck
train, tram, locomotive: bus, car
helicopter, jet, plane, drone, glider, ufo, spacecraft, satellite: airplane, rocket
boat, ship, yacht, submarine, canoe: sailboat
building, skyscraper, church, temple, palace, hotel, school, castle: tower, house, lighthouse
hut, barn, shed, tent, igloo, cottage: house
mill: windmill
furniture: chair, table, sofa
bench, couch, armchair, throne: bench, sofa, chair
desk, counter: table
shelf, cupboard, wardrobe, cabinet, drawer: bookshelf, treasure chest
box, crate, chest, safe, suitcase, bag, backpack, basket: treasure chest, gift box, barrel
plant, flower, rose, tulip, bush, leaf, grass: cactus, tree, vase
palm, oak, fir, spruce, bonsai: pine tree, tree
fruit, food, vegetable: apple, pear, pumpkin
banana, lemon, mango, pineapple: banana, pear
orange, peach, plum, cherry, tomato, strawberry, grape, melon, watermelon: apple, pumpkin
carrot, potato, cucumber, corn: carrot, pear
bread, pizza, sandwich, hamburger, hotdog, taco, sushi: burger, cake, donut
cookie, biscuit, muffin, pie, dessert, pancake, croissant: cupcake, donut, cake
egg: ball, pear
weapon, knife, dagger, axe, spear, gun, bow, shield, katana: sword, axe, hammer
tool, wrench, screwdriver, saw, pickaxe, shovel: hammer, axe
instrument, violin, ukulele, cello, piano, banjo: guitar
drum: barrel, bucket
jug, pitcher, kettle: teapot, vase
pot, jar, urn, flask: vase, bottle, teapot
can, bin, pail: bucket, barrel
glass, beaker, tumbler: goblet, mug
plate, dish, pan: bowl
helmet, cap, hat: top hat, crown
ring, necklace, jewel, gem, diamond, coin: crown, heart, star
shoe, boot, shirt, dress, jacket: top hat, umbrella
lantern, torch, chandelier, flashlight: lamp, candle, light bulb
moon, earth, sun, globe, world, galaxy: planet, star, ball
football, basketball, sphere, marble, balloon: ball
chess piece, rook, bishop: chess pawn
computer, laptop, phone, television, tv, camera, clock, watch, radio: book, robot
magazine, newspaper, notebook: book
parachute, tent pole: umbrella
weight, barbell: dumbbell
`)

// parseHints reads lines "word, word: thing, thing".
func parseHints(text string) map[string][]string {
	out := map[string][]string{}
	for line := range strings.Lines(text) {
		words, things, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		for _, w := range strings.Split(words, ",") {
			w = strings.TrimSpace(w)
			for _, t := range strings.Split(things, ",") {
				out[w] = append(out[w], strings.TrimSpace(t))
			}
		}
	}
	return out
}

// descriptions are words that never say what a prompt is about: function words
// and common adjectives.
var descriptions = strings.Fields(`
the and some one two three four that this made very its his her their all
photo picture image model render rendering asset style type kind sort piece pair set shape shaped
cute beautiful detailed simple old new nice small big little large stylized stylised cartoon pretty lovely
realistic photorealistic medieval antique vintage rustic modern futuristic elegant fancy tiny giant huge mini round
shiny handmade funny magic magical fantasy colorful colourful minimalist isometric traditional classic fresh
studio background quality clean high best game ready low poly tall short squat wide thin thick dirty broken
red orange yellow green blue purple pink brown black white grey gray golden silver dark light bright pale
wooden ceramic metal plastic stone glass leather paper cotton striped spotted
`)

// prepositions end the part of a prompt that names its subject.
var prepositions = []string{"with", "without", "of", "on", "in", "at", "by", "for", "from", "under", "over", "inside", "beside", "next", "near",
	"riding", "holding", "wearing", "carrying", "eating", "sitting", "standing", "lying"}
